"""Routing policies on a recorded trace, without HTTP: what ``gaugeblock simulate`` runs."""
