"""What runs now, followed as it happens."""
