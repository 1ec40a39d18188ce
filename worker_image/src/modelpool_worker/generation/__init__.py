"""Text, token by token: rows and their cache, sampling, stop strings, chat templates."""
