"""Tests of the references of the stages."""
