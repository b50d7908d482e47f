"""Topic discovery: the topics of one firm's call."""
