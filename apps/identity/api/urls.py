from __future__ import annotations

from django.urls import path

from apps.identity.api.views import Me, MeAgain, TokenCollection, TokenDetail

urlpatterns = [
    path("me", Me.as_view()),
    path("rbac/me", MeAgain.as_view()),
    path("rbac/tokens", TokenCollection.as_view()),
    path("rbac/tokens/<str:token_id>", TokenDetail.as_view()),
]
