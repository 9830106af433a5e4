from __future__ import annotations

from django.db import migrations, models

# Installations that have an organization are closed; from here on the first organization closes.
FORWARD = """
INSERT INTO identity_installation (id, code_number, closed_at)
    SELECT 1, 0, statement_timestamp() WHERE EXISTS (SELECT FROM identity_organization);

CREATE FUNCTION identity_close_installation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM identity_installation WHERE closed_at IS NOT NULL) THEN
        INSERT INTO identity_installation AS installation (id, code_number, closed_at)
            VALUES (1, 0, statement_timestamp())
            ON CONFLICT (id) DO UPDATE SET closed_at = EXCLUDED.closed_at, code_hash = NULL
            WHERE installation.closed_at IS NULL;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER closes_the_installation AFTER INSERT ON identity_organization
    FOR EACH STATEMENT EXECUTE FUNCTION identity_close_installation();

CREATE FUNCTION identity_refuse_reopening() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the first start of this installation is over'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'identity_installation_stays_closed';
END $$;
CREATE TRIGGER stays_closed BEFORE UPDATE OR DELETE ON identity_installation
    FOR EACH ROW WHEN (OLD.closed_at IS NOT NULL) EXECUTE FUNCTION identity_refuse_reopening();
"""
BACKWARD = """
DROP TRIGGER stays_closed ON identity_installation;
DROP FUNCTION identity_refuse_reopening();
DROP TRIGGER closes_the_installation ON identity_organization;
DROP FUNCTION identity_close_installation();
"""


class Migration(migrations.Migration):
    dependencies = [("identity", "0005_withdrawals")]

    operations = [
        migrations.CreateModel(
            name="Installation",
            fields=[
                (
                    "id",
                    models.SmallIntegerField(
                        default=1, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("code_hash", models.BinaryField(max_length=32, null=True)),
                ("code_number", models.PositiveIntegerField(default=0)),
                ("closed_at", models.DateTimeField(null=True)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("id", 1)), name="identity_installation_is_one_row"
                    )
                ]
            },
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
