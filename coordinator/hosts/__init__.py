"""Hosts: enrolment, keys, check-ins, removal."""
