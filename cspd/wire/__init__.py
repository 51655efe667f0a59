"""What goes over sockets: messages, JSON-RPC, attach frames. Pure; shared by every program."""
