"""The composition root: settings, routes and process set-up. It holds no behaviour."""
