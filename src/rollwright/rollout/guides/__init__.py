"""Who acts beside the policy: guides that take turns, overseers that replace actions.

Lives here: the section `actor` (`actor_settings`), guides that are scripts or stores (`scripted_guides`) and that
sample (`engine_guides`), overseers (`overseers`), the policy with both beside it (`mixed_actor`), and how they are
opened (`open_guide`).
"""
