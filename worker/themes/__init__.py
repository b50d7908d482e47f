"""Themes: topics of many firms that are about the same subject, over one or more quarters."""
