"""The one LightningModule and what surrounds it: rates, averages, the audit, callbacks, checkpoints."""
