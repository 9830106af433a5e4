from __future__ import annotations

from django.urls import path

from apps.sandboxes.api.views import (
    EnvironmentClone,
    EnvironmentCollection,
    EnvironmentDefault,
    EnvironmentDetail,
    ImageCollection,
    InstanceCollection,
    ProfileCollection,
)

urlpatterns = [
    path("sandboxes/environments", EnvironmentCollection.as_view()),
    path("sandboxes/environments/<str:environment_id>", EnvironmentDetail.as_view()),
    path("sandboxes/environments/<str:environment_id>/clone", EnvironmentClone.as_view()),
    path("sandboxes/environments/<str:environment_id>/default", EnvironmentDefault.as_view()),
    path("sandboxes/profiles", ProfileCollection.as_view()),
    path("sandboxes/images", ImageCollection.as_view()),
    path("sandboxes/instances", InstanceCollection.as_view()),
]
