"""Who gets in and as what: accounts, tokens, roles, guesses, and the trail of it. No wire."""
