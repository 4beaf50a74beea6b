"""Images and labels: sources, splits, preprocessing and the datamodule."""
