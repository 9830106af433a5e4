from __future__ import annotations

from django.urls import path

from apps.identity.api import bindings, departments, people, proposals
from apps.identity.api.views import Me, MeAgain, TokenCollection, TokenDetail

urlpatterns = [
    path("me", Me.as_view()),
    path("rbac/me", MeAgain.as_view()),
    path("rbac/check", bindings.Check.as_view()),
    path("rbac/roles", bindings.Roles.as_view()),
    path("rbac/bindings", bindings.BindingCollection.as_view()),
    path("rbac/bindings/<str:binding_id>", bindings.BindingDetail.as_view()),
    path("rbac/proposals", proposals.ProposalCollection.as_view()),
    path("rbac/proposals/<str:proposal_id>", proposals.ProposalDetail.as_view()),
    path("rbac/proposals/<str:proposal_id>/accept", proposals.ProposalAcceptance.as_view()),
    path("rbac/proposals/<str:proposal_id>/decline", proposals.ProposalRefusal.as_view()),
    path("rbac/people", people.PeopleCollection.as_view()),
    path("rbac/people/<str:user>", people.PersonDetail.as_view()),
    path("rbac/people/<str:user>/deactivate", people.PersonDeactivation.as_view()),
    path("rbac/people/<str:user>/reactivate", people.PersonReactivation.as_view()),
    path("rbac/people/<str:user>/sessions", people.PersonSessions.as_view()),
    path("rbac/people/<str:user>/second-factor", people.PersonSecondFactor.as_view()),
    path("rbac/service-accounts", people.AccountCollection.as_view()),
    path("rbac/service-accounts/<str:user>", people.AccountDetail.as_view()),
    path("rbac/service-accounts/<str:user>/deactivate", people.AccountDeactivation.as_view()),
    path("rbac/service-accounts/<str:user>/reactivate", people.AccountReactivation.as_view()),
    path("rbac/service-accounts/<str:user>/tokens", people.AccountTokens.as_view()),
    path("rbac/service-accounts/<str:user>/tokens/<str:token_id>", people.AccountToken.as_view()),
    path("rbac/departments", departments.DepartmentCollection.as_view()),
    path("rbac/departments/<str:department_id>", departments.DepartmentDetail.as_view()),
    path("rbac/departments/<str:department_id>/members", departments.MemberCollection.as_view()),
    path("rbac/departments/<str:department_id>/members/<str:user>", departments.Member.as_view()),
    path("rbac/tokens", TokenCollection.as_view()),
    path("rbac/tokens/<str:token_id>", TokenDetail.as_view()),
]
