from __future__ import annotations

from django.urls import path

from apps.projects.api.views import FileCollection, ProjectCollection, ProjectDetail

urlpatterns = [
    path("projects", ProjectCollection.as_view()),
    path("projects/<str:project>", ProjectDetail.as_view()),
    path("projects/<str:project>/files", FileCollection.as_view()),
]
