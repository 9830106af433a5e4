from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import path

from apps.hub import views

urlpatterns = [
    path("", views.chat, name="chat"),
    path("login", views.Login.as_view(), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("palette", views.palette, name="palette"),
    path("runs", views.runs, name="runs"),
    path("runs/<uuid:public_id>", views.run, name="run"),
    path("runs/<uuid:public_id>/row", views.run_row, name="run_row"),
    path("runs/<uuid:public_id>/workspace", views.workspace, name="workspace"),
    path("runs/<uuid:public_id>/log", views.run_log, name="run_log"),
    path("runs/<uuid:public_id>/files/<path:name>", views.run_file, name="run_file"),
    path("runs/<uuid:public_id>/cancel", views.run_cancel, name="run_cancel"),
    path("runs/<uuid:public_id>/rerun", views.run_rerun, name="run_rerun"),
    path("projects/<uuid:project_id>/cards", views.event_cards, name="cards"),
    path("projects/<uuid:project_id>/composer", views.composer, name="composer"),
    path("projects/<uuid:project_id>/recent", views.recent, name="recent"),
    path("projects/<uuid:project_id>/workspace", views.latest_workspace, name="latest_workspace"),
    path("projects/<uuid:project_id>/tabs", views.tabs, name="tabs"),
    path("projects/<uuid:project_id>/submit", views.submit, name="submit"),
]
