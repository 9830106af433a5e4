// The launcher prints an address with the activation code behind a #, which is never sent to a server
// or written to its log. Put it into the field, and out of the address and the history.

const field = document.getElementById("code");
const code = location.hash.slice(1);

if (field && /^[A-Za-z0-9-]{20,40}$/.test(code)) {
  field.value = code;
  history.replaceState(null, "", location.pathname);
  field.form.querySelector("button[type=submit]").focus();
}
