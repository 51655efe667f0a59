"""cspctl: the command line of CSP."""
