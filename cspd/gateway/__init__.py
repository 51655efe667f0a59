"""Rooms, inboxes, history and the links to sidecars."""
