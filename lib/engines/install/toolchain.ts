import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { sequenceS } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import type * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, invalid, taskValidation } from '../../error.js'
import { type Command, runProcess } from './run-process.js'

/** The three programs that `setup` needs. */
export interface Toolchain {
  readonly pip: Command
  readonly python: Command
  readonly compiler: Command
}
export type Tool = keyof Toolchain

// `-I` isolates Python: no module of the working folder (a `pip.py`, a `zipfile.py`) is imported in place of the real one
const commands = (env: NodeJS.ProcessEnv): Readonly<Record<Tool, readonly Command[]>> => ({
  pip: [['python3', '-I', '-m', 'pip'], ['pip3'], ['pip'], ['python', '-I', '-m', 'pip']],
  python: [
    ['python3', '-I'],
    ['python', '-I']
  ],
  compiler: [...(env.CXX ? [[env.CXX] as const] : []), ['g++'], ['c++'], ['clang++']]
})

/** Install command and package names of each package manager. */
const packages: Readonly<Record<string, readonly [install: string, Readonly<Record<Tool, string>>]>> = {
  'apt-get': ['apt-get install -y', { pip: 'python3-pip', python: 'python3', compiler: 'g++' }],
  dnf: ['dnf install -y', { pip: 'python3-pip', python: 'python3', compiler: 'gcc-c++' }],
  zypper: ['zypper install -y', { pip: 'python3-pip', python: 'python3', compiler: 'gcc-c++' }],
  pacman: ['pacman -S --noconfirm', { pip: 'python-pip', python: 'python', compiler: 'gcc' }],
  apk: ['apk add', { pip: 'py3-pip', python: 'python3', compiler: 'g++' }],
  brew: ['brew install', { pip: 'python3', python: 'python3', compiler: 'gcc' }]
}

const onPath = (program: string, env: NodeJS.ProcessEnv): boolean =>
  (env.PATH ?? '').split(delimiter).some((folder) => folder !== '' && existsSync(join(folder, program)))

/** Shell command that installs a tool with the package manager of this machine. */
export const installHint = (tool: Tool, env: NodeJS.ProcessEnv = process.env): string => {
  if (process.platform === 'darwin' && tool === 'compiler') return 'xcode-select --install'
  const manager = Object.keys(packages).find((name) => onPath(name, env))
  const [install, names] = packages[manager ?? 'apt-get'] ?? ['', {} as Record<Tool, string>]
  const sudo = manager === 'brew' || process.getuid?.() === 0 ? '' : 'sudo '
  return `${sudo}${install} ${names[tool]}`
}

const titles: Readonly<Record<Tool, string>> = { pip: 'pip', python: 'Python', compiler: 'a C++ compiler' }

/** The first command of a tool that runs. The error names the command that installs the tool. */
export const findTool =
  (tool: Tool, env: NodeJS.ProcessEnv): TE.TaskEither<Issues, Command> =>
  async () => {
    for (const command of commands(env)[tool])
      if (E.isRight(await runProcess(command, ['--version'], { env })())) return E.right(command)
    const fix = installHint(tool, env)
    return invalid('MissingTool', `${titles[tool]} is missing; install it with \`${fix}\``, { tool, fix })
  }

/** All three tools, searched in parallel; one issue for every missing tool. */
export const findToolchain = (env: NodeJS.ProcessEnv): TE.TaskEither<Issues, Toolchain> =>
  sequenceS(taskValidation)({
    pip: findTool('pip', env),
    python: findTool('python', env),
    compiler: findTool('compiler', env)
  })
