import { setup } from '../../../../lib/engines/install/setup-engine.js'
import { orThrow } from '../../../../lib/error.js'
import { Workbench } from '../fakes.js'

// Runs a set-up in a separate process, for tests that kill the process or run two; the argument is the test folder.
const bench = new Workbench(process.argv[2])
const { state } = await orThrow(setup(bench.options({ pip: process.argv[3] === 'slow' ? 'slow' : 'ok' })))
console.log(state)
