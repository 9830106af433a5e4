"""What every answer tells the browser besides Django's own headers."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponseBase

from apps.core.middleware import AsyncMiddleware

# What our pages never ask of a browser, so that nothing that gets into them can.
_FEATURES: Final = (
    *("accelerometer", "autoplay", "browsing-topics", "camera", "display-capture"),
    *("encrypted-media", "fullscreen", "geolocation", "gyroscope", "hid", "idle-detection"),
    *("magnetometer", "microphone", "midi", "payment", "picture-in-picture"),
    *("publickey-credentials-get", "screen-wake-lock", "serial", "usb", "xr-spatial-tracking"),
)
_ALWAYS: Final = {
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in _FEATURES),
    # Nobody else's page may load ours, and ours load nobody else's.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
# Said unless a view says something better: what is shown is somebody's.
_NO_STORE: Final = "no-store, private"


class HeadersMiddleware(AsyncMiddleware):
    """Outside of everything that answers, static files included."""

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = await self.get_response(request)
        for name, told in _ALWAYS.items():
            response.headers.setdefault(name, told)
        response.headers.setdefault("Cache-Control", _NO_STORE)
        return response
