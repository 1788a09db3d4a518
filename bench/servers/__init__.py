"""Servers that speak the OpenAI API: one, or a fleet of servers of one model. The backend `openai` and the judge ask
them."""
