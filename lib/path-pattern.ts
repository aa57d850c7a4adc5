/** Which paths of a tree are meant: a glob (`*` for one name, `**` for any number), or a regular expression for a whole path. */
export type PathPattern = string | RegExp

const source = (glob: string): string =>
  glob
    .split(/(\*\*?)/)
    .map((part) => (part === '**' ? '.+' : part === '*' ? '[^.]+' : part.replaceAll(/[.\\^$+?()[\]{}|]/g, '\\$&')))
    .join('')

/** Whether a path matches: a regular expression the whole of it, a glob its end, from a name on (`q_proj`, `mlp.*`), as PEFT's targets. */
export const matchesPath = (pattern: PathPattern): ((path: string) => boolean) => {
  const whole = new RegExp(typeof pattern === 'string' ? `^(?:.*\\.)?${source(pattern)}$` : `^(?:${pattern.source})$`)
  return (path) => whole.test(path)
}
