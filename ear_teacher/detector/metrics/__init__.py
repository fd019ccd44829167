"""What an ear detector is measured by: boxes, and landmarks."""
