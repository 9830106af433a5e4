"""What we measure against: what a team would write with Celery alone."""
