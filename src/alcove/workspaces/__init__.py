"""Workspaces: the folder of each session, and every access to what is in it."""
