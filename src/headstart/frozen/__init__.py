"""What happens on the features of a frozen backbone: a head is solved for, or one or many are trained in one loop."""
