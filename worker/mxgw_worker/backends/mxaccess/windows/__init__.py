"""What calls COM and Windows. Nothing here can be imported on another system."""
