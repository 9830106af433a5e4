// What markup a document is made of. Runs in the page; `root` is the page's document or a parsed one.
(root) => {
  const COUNTED = "script,iframe,object,embed,base,style,link,meta,form,math,video,audio,frameset,applet,foreignObject,animate,set,image,marquee,details,dialog,portal,slot";
  const LOADED = ["src", "srcset", "poster", "data", "background", "xlink:href"];
  const FOLLOWED = ["href", "action", "formaction", "ping"];
  const pairs = new Set();
  const wrong = [];
  const counts = {};
  const texts = [];
  const walk = (from) => {
    for (const element of from.querySelectorAll("*")) {
      const tag = element.localName;
      if (element.matches(COUNTED)) counts[tag] = (counts[tag] ?? 0) + 1;
      pairs.add(tag);
      for (const { name, value } of element.attributes) {
        pairs.add(`${tag} ${name}`);
        texts.push(value);
        const url = value.trim().replace(/[\u0000-\u0020]/g, "");
        if (LOADED.includes(name) || (tag === "link" && name === "href") || (tag === "use" && name === "href")) {
          if (!/^(\/(?!\/)|#|data:image\/)/.test(url)) wrong.push(`${tag} ${name}=${value}`);
        } else if (FOLLOWED.includes(name)) {
          if (/^[a-z][a-z0-9+.-]*:/i.test(url) && !/^(https?|mailto):/i.test(url)) wrong.push(`${tag} ${name}=${value}`);
          if (/^[/\\]{2}/.test(url)) wrong.push(`${tag} ${name}=${value}`);
        } else if (/^(data-)?hx-(get|post|put|patch|delete|ws|sse)/.test(name) && !/^\/(?![/\\])/.test(url)) {
          wrong.push(`${tag} ${name}=${value}`);
        } else if (name.startsWith("on") || name === "srcdoc") {
          wrong.push(`${tag} ${name}=${value}`);
        }
      }
      if (element.shadowRoot) walk(element.shadowRoot);
      if (tag === "template") walk(element.content);
    }
  };
  walk(root);
  texts.push(root.documentElement.textContent);
  const fields = [...new Set([...texts.join("\n").matchAll(/zf(\d+)z/g)].map((match) => Number(match[1])))];
  return { pairs: [...pairs], wrong, counts, fields };
}
