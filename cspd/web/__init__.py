"""The method table over the network: HTTP, WebSocket and server-sent events on one listener, with tokens."""
