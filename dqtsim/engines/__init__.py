"""EXECUTE: what runs a plan: engines, their registry, and what a run gives."""
