"""csp-keeper: forks, reaps and keeps descriptors. The process that must not die holds the least."""
