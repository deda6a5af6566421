"""What `make messages` does: find all messages in the source, bring the catalogues up to date, compile them.

Only developers need it; Babel is in the extra `dev`.
"""
