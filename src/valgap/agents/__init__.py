"""valgap for coding agents: a few tools over the Model Context Protocol, each answer short and bounded (`valgap mcp`)."""
