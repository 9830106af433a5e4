from __future__ import annotations

from django.db import migrations

from apps.core.rowsecurity import READ, WRITE, grant, owned, through


class Migration(migrations.Migration):
    dependencies = [
        ("identity", "0002_access"),
        ("events", "0004_row_security"),
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("sessions", "0001_initial"),
        ("axes", "0010_accessattemptexpiration"),
    ]

    operations = [
        owned("identity_organization", ("SELECT", "UPDATE"), column="id"),
        owned("identity_department", WRITE),
        owned("identity_user", WRITE),
        owned("identity_binding", WRITE),
        through("identity_user", "identity_apitoken", WRITE, column="user_id"),
        through("identity_user", "identity_user_departments", WRITE, column="user_id"),
        through("identity_user", "identity_user_groups", WRITE, column="user_id"),
        through("identity_user", "identity_user_user_permissions", WRITE, column="user_id"),
        through("identity_user", "identity_signin", WRITE, column="user_id"),
        through("identity_user", "identity_secondfactor", WRITE, column="user_id"),
        through("identity_user", "identity_recoverycode", WRITE, column="user_id"),
        through("identity_user", "django_admin_log", ("SELECT", "INSERT"), column="user_id"),
        # Read before anybody is known.
        grant("django_session", WRITE),
        # Guesses at the door, by people who are nobody yet.
        grant("axes_accessattempt", WRITE),
        grant("axes_accessattemptexpiration", WRITE),
        grant("axes_accesslog", WRITE),
        grant("axes_accessfailurelog", WRITE),
        migrations.RunSQL(
            """
            GRANT USAGE ON SEQUENCE axes_accessattempt_id_seq, axes_accesslog_id_seq,
                axes_accessfailurelog_id_seq TO aos_app
            """,
            migrations.RunSQL.noop,
        ),
        # Django's own words about its models.
        grant("django_content_type", READ),
        grant("auth_permission", READ),
        grant("auth_group", READ),
        grant("auth_group_permissions", READ),
    ]
