"""The demo: every step from sample data to pictures, as commands that a user would type."""
