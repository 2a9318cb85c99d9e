package org.tensorflow.lite

import java.nio.ByteBuffer

enum class DataType { FLOAT32, INT8, INT16 }

abstract class Tensor {
    abstract fun dataType(): DataType
    abstract fun numElements(): Int
    abstract fun numBytes(): Int
    abstract fun quantizationParams(): QuantizationParams

    abstract class QuantizationParams {
        abstract val scale: Float
        abstract val zeroPoint: Int
    }
}

class Interpreter(val model: ByteBuffer, val options: Options) : AutoCloseable {
    class Options {
        fun setNumThreads(count: Int): Options = this
    }

    fun getInputTensor(index: Int): Tensor = throw UnsupportedOperationException()
    fun getOutputTensor(index: Int): Tensor = throw UnsupportedOperationException()
    fun run(input: Any, output: Any) {}
    override fun close() {}
}
