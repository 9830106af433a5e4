from __future__ import annotations

from django.urls import path

from apps.hub import account, views
from apps.hub.audit import pages as audit

urlpatterns = [
    path("", views.chat, name="chat"),
    path("login", account.Login.as_view(), name="login"),
    path("login/code", account.login_code, name="login_code"),
    path("logout", account.logout, name="logout"),
    path("account/verify", account.verify, name="verify"),
    path("account/security", account.security, name="security"),
    path("account/password", account.password, name="password"),
    path("account/sessions/others", account.sessions_revoke_others, name="sessions_others"),
    path("account/sessions/<uuid:sign_in_id>", account.session_revoke, name="session_revoke"),
    path("account/second-factor", account.second_factor_setup, name="second_factor"),
    path("account/second-factor/off", account.second_factor_remove, name="second_factor_off"),
    path("account/tokens", account.token_issue, name="token_issue"),
    path("account/tokens/<uuid:token_id>", account.token_revoke, name="token_revoke"),
    path("audit", audit.audit, name="audit"),
    path("audit/entries/<int:entry_id>", audit.entry, name="audit_entry"),
    path("audit/export", audit.download, name="audit_download"),
    path("audit/verify", audit.verify, name="audit_verify"),
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
