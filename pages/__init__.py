"""The pages of the dashboard: widgets in, figures out."""
