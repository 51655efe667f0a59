"""The JSON-RPC method table of cspd and the sockets that serve it."""
