import { type Issue, issue } from '../../lib/error.js'

const part = /^[A-Za-z0-9](?:[\w.-]*\w)?$/ // Python's \w, were it ASCII, and no - or . at either end

/** Whether `org/name` could name a repository. Source: `validate_repo_id` (huggingface_hub 2.4). */
export const isRepoName = (name: string): boolean => {
  const parts = name.split('/')
  return (
    parts.length === 2 && parts.every((p) => part.test(p)) && name.length <= 96 && !/--|\.\./.test(name) && !name.endsWith('.git')
  )
}

/** Whether a name can only be a path: `/x`, `./x`, `~/x`, `C:\x`, `a/b/c`, `a/`. */
export const isPath = (name: string): boolean => /^[./~]|\\|^\w:|\/$/.test(name) || name.split('/').length > 2

/** The issue of a name that is neither a folder nor a valid repository name. */
export const badName = (name: string): Issue =>
  issue(
    'BadModelName',
    `${JSON.stringify(name)} is not a local folder, and not a repository name of the hub: org/name, at most 96 letters, digits, "-", "_" and ".", without "--" or ".."`,
    { name }
  )

/** Issues of a revision that is not a valid branch, tag or commit name; the name becomes part of a path. Source: `git check-ref-format`. */
export const revisionIssues = (revision: string): readonly Issue[] =>
  !/[\p{Cc}\s\\:?*[~^]|\.\./u.test(revision) && revision.split('/').every((p) => p !== '' && !p.startsWith('.'))
    ? []
    : [
        issue('BadRevision', `revision ${JSON.stringify(revision)}: not a valid name of a branch, a tag or a commit`, {
          revision
        })
      ]
