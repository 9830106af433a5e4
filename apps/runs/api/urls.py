from __future__ import annotations

from django.urls import path

from apps.runs.api.bulk import (
    BulkActCollection,
    BulkActDetail,
    BulkPreview,
    BulkProceed,
    BulkStop,
    BulkSubmission,
)
from apps.runs.api.limits import (
    AgentLimit,
    AgentPause,
    AgentResume,
    KeyLimit,
    LimitCollection,
    OrganizationLimit,
    ProjectLimit,
    QueueCap,
)
from apps.runs.api.log import RunLogPages
from apps.runs.api.queues import QueueCollection, QueuePause, QueueResume
from apps.runs.api.retention import RetentionPolicy
from apps.runs.api.schedules import (
    FireCollection,
    ScheduleCollection,
    ScheduleDetail,
    SchedulePause,
    ScheduleResume,
    ScheduleRun,
)
from apps.runs.api.views import (
    ArtifactCollection,
    ArtifactDownload,
    Cancel,
    DeadLetterCollection,
    Dismiss,
    Requeue,
    Rerun,
    RunCollection,
    RunDependencies,
    RunDetail,
    RunSubmission,
)

urlpatterns = [
    path("run", RunSubmission.as_view()),
    path("runs", RunCollection.as_view()),
    path("runs/bulk", BulkSubmission.as_view()),
    path("runs/bulk/preview", BulkPreview.as_view()),
    path("runs/bulk/acts", BulkActCollection.as_view()),
    path("runs/bulk/acts/<str:act_id>", BulkActDetail.as_view()),
    path("runs/bulk/acts/<str:act_id>/proceed", BulkProceed.as_view()),
    path("runs/bulk/acts/<str:act_id>/stop", BulkStop.as_view()),
    path("runs/<str:run_id>", RunDetail.as_view()),
    path("runs/<str:run_id>/cancel", Cancel.as_view()),
    path("runs/<str:run_id>/rerun", Rerun.as_view()),
    path("runs/<str:run_id>/requeue", Requeue.as_view()),
    path("runs/<str:run_id>/dismiss", Dismiss.as_view()),
    path("runs/<str:run_id>/dependencies", RunDependencies.as_view()),
    path("dead-letters", DeadLetterCollection.as_view()),
    path("runs/<str:run_id>/events", RunLogPages.as_view()),
    path("runs/<str:run_id>/artifacts", ArtifactCollection.as_view()),
    path("runs/<str:run_id>/artifacts/<path:name>", ArtifactDownload.as_view()),
    path("queues", QueueCollection.as_view()),
    path("queues/<str:queue>/<str:priority>/pause", QueuePause.as_view()),
    path("queues/<str:queue>/<str:priority>/resume", QueueResume.as_view()),
    path("queues/<str:queue>/<str:priority>/cap", QueueCap.as_view()),
    path("limits", LimitCollection.as_view()),
    path("limits/organization", OrganizationLimit.as_view()),
    path("limits/projects/<str:project>", ProjectLimit.as_view()),
    path("limits/agents/<str:agent>", AgentLimit.as_view()),
    path("limits/keys/<path:key>", KeyLimit.as_view()),
    path("retention", RetentionPolicy.as_view()),
    path("agents/<str:agent>/pause", AgentPause.as_view()),
    path("agents/<str:agent>/resume", AgentResume.as_view()),
    path("schedules", ScheduleCollection.as_view()),
    path("schedules/<str:schedule_id>", ScheduleDetail.as_view()),
    path("schedules/<str:schedule_id>/pause", SchedulePause.as_view()),
    path("schedules/<str:schedule_id>/resume", ScheduleResume.as_view()),
    path("schedules/<str:schedule_id>/run", ScheduleRun.as_view()),
    path("schedules/<str:schedule_id>/fires", FireCollection.as_view()),
]
