"""Data: how to tell what a program is doing from its screen."""
