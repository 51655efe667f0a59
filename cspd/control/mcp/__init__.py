"""The Model Context Protocol as methods of cspd's own dispatcher: tools and resources for agents."""
