"""Controls as plain data, and prompts with their controls as text."""
