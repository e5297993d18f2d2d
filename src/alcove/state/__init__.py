"""State: JSON values by scope and key, of a session, a user, a subject, an agent, an app or a run."""
