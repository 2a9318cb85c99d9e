"""The one description of a network: primitive layers, templates with open choices, and the decoded graph."""
