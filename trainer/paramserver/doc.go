// Package paramserver trains one model on many machines in synchronous rounds (Li et
// al., Scaling Distributed Machine Learning with the Parameter Server, OSDI 2014; bulk
// synchronous variant). The parameters are one flat arena of float32, of which each
// server holds one contiguous block with the optimiser's state.
//
// In a round each worker pushes its gradient and gets the new weights in the same
// exchange. A server adds the gradients in the order of the workers' numbers, whatever
// the order of their arrival, so the same seed and number of workers give the same
// model to the bit. A block travels in chunks; each is applied as soon as the last
// worker's has come, while later ones are still on the wire. A push names its step, so
// repeating one after a broken connection changes nothing.
package paramserver
