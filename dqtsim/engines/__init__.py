"""EXECUTE: the engines that run a plan, their registry, and the result of a run."""
