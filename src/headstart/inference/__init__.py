"""Finished models at work: predictions of any number of images, their features, the images nearest to one."""
